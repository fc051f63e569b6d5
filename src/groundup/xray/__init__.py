"""An X-ray of a model that reads a text: what it computes, as plain data and as a page.

``take_xray`` asks the model, ``write_xray`` makes one page of the answer that needs nothing else.
"""

from groundup.xray.data import XRay
from groundup.xray.page import write_xray
from groundup.xray.take import MAX_TOKENS, take_xray

__all__ = ["MAX_TOKENS", "XRay", "take_xray", "write_xray"]
