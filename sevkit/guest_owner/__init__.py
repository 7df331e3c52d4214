"""The guest owner's side of a launch: what he judges, releases and lets run."""
