"""nbval executes the notebooks that `make book` has not, as they are now."""

from acl_lib import publish


def pytest_configure(config):
    config.acl_code = publish.code_digest()


def pytest_ignore_collect(collection_path, config):
    path = collection_path
    if path.suffix == ".ipynb" and publish.is_current(path, config.acl_code):
        return True
