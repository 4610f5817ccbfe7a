"""Prompts: sets of template files, each set a folder. `string.Template` fills them in: $name."""
