"""The trained encoder as files that outlive the run."""
