import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of the module's own, empty at first: what other modules draw is not in it."""
    home = tmp_path_factory.mktemp("keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(home))
        yield home / "mlutils"
