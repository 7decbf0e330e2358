"""From a class to commands, and from JSON to Python values and back.

Read `commands` (an adapter's class and its commands), `signature` (a command's schema, and the check of arguments),
`annotation` and `checker` (the check of one type). `value` and `arrays` encode results, `json_text` reads and
writes their text; `describe` prints a class.
"""
