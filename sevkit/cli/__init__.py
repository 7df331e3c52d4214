"""The ``sevkit`` command. Only this floor reads argv, the environment and signals."""
