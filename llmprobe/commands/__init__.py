"""The subcommands of `llmprobe`, one file each: a frozen dataclass of options with a `run` method."""
