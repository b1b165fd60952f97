pytest_plugins = ["tests.notebooks.plugin"]
