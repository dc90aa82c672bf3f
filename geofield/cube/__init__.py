"""One Zarr cube per box."""
