"""The checks of ``sevkit cluster preflight``: ``check`` makes them, ``catalogue`` lists them."""
