"""Settings and logging: what a process is told before it starts. Nothing else reads the environment."""

from config.settings import Secret, Settings, SettingsError, child_environment, load, replaced

__all__ = ["Secret", "Settings", "SettingsError", "child_environment", "load", "replaced"]
