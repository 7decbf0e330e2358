"""Problems with evidence and fix: facts are gathered, then judged; nothing is started or changed."""
