"""Behind ``tools/ca``: a certification authority in a folder."""
