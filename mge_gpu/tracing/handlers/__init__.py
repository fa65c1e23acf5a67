"""Handlers: one function a kind of op, from the values an op reads to the value it returns."""
