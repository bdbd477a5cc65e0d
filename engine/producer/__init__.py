"""What a camera's side of the line does: read pictures, pace them, send them so that none is lost or doubled."""
