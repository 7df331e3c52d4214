"""The checks of ``sevkit node doctor``: ``check`` makes them, ``catalogue`` lists them."""
