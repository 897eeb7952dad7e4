"""Other projects, measured beside this one in environments of their own. Nothing here is imported by the package."""
