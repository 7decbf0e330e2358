"""From a class to commands, and from JSON to Python values and back.

Read `commands` (an adapter's class and its commands), `signature` (a command's schema, and the check of arguments),
`annotation` and `checker` (the check of one type). `value`, `arrays` and `json_encode` encode results; `describe`
prints a class.
"""
