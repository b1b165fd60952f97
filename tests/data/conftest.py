import pytest


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The module's own cache, empty at first."""
    folder = tmp_path_factory.mktemp("keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(folder))
        yield folder / "mlutils"
