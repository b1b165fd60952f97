import pytest


@pytest.fixture(scope="session")
def drawn_once(tmp_path_factory):
    """A cache that all tests of drawn data share, empty at first: each is drawn once."""
    return tmp_path_factory.mktemp("keras")


@pytest.fixture(scope="module")
def cache(drawn_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(drawn_once))
        yield drawn_once / "mlutils"
