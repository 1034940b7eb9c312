"""The subcommands of `toymodels`, one file each: the settings of a run are its options."""
