"""The command line: a module a verb, their options and their help."""
