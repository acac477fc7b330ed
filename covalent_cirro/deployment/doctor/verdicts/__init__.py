"""Decides what facts about an account, a deployment and a Covalent server mean: ok, warning or failure, and a remedy.

Pure. This package must not know how facts are asked for, nor how findings are shown.
"""
