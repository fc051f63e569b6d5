"""Build a GPT from the ground up: the class you read is the class that runs fast.

The public names are declared in ``__init__.pyi``, for Python and for type checkers alike, and
imported when first used: ``import groundup`` costs no PyTorch.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("groundup")
