"""Build a GPT from the ground up: the class you read is the class that runs fast.

The public names are declared in ``__init__.pyi``, for Python and for type checkers alike, and
imported when first used: ``import groundup`` costs no PyTorch, and nearly nothing at all, so that
the command line hears Ctrl-C from its first moment on.
"""

_names: tuple = ()


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("groundup")
    get, _, everything = _declared()
    return everything if name == "__all__" else get(name)


def __dir__() -> list[str]:
    return [*_declared()[1](), "__version__"]


def _declared() -> tuple:
    """How to get a public name, and which there are."""
    global _names
    if not _names:
        import lazy_loader

        _names = lazy_loader.attach_stub(__name__, __file__)
    return _names
