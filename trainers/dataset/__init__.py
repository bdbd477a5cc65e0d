"""Pictures from disc: read, checked, set aside, copied with changes."""
