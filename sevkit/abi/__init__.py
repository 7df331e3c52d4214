"""Bytes and values exactly as AMD prints them. Pure: no file, no network, no clock."""
