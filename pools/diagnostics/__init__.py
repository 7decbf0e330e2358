"""What is wrong, with the evidence and the way out: facts are gathered, then judged; nothing is started or changed."""
