"""How fast a meta-step is, beside the same in JAX and PyTorch: see ``run.py``."""
