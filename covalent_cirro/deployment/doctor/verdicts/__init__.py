"""What facts about an account, a deployment and a Covalent server mean: ok, a warning, a failure, and what to do.

Pure: facts in, findings out. It must not know how facts are asked for, nor how findings are shown.
"""
