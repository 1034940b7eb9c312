"""What `llmprobe.fit` is made of: solver, uncertainties, windows, rivals and what must be said of a fit."""
