"""Helpers shared by the GLAD datacube workshop's notebooks.

What a lesson teaches is in the notebook; what would distract from it is here.

Settings, environment variables that you may set::

    GLAD_TILES    folder or http(s) URL of the tiles, instead of data/    (tiles.py)
    GLAD_BUCKET   s3://name/prefix, instead of the bucket on this machine (stores.py)

What importing a module changes for the whole process; environment variables that are set already stay as they are::

    tiles     GDAL_CACHEMAX, GDAL_HTTP_CONNECTTIMEOUT, GDAL_HTTP_LOW_SPEED_LIMIT,
              GDAL_HTTP_LOW_SPEED_TIME, GDAL_HTTP_MAX_RETRY, GDAL_HTTP_RETRY_DELAY
    stores    Icechunk logs errors only
    virtual   Zarr's codec imagecodecs_lzw, in its registry and in zarr.config; a filter for virtual-tiff's warning
    maps      matplotlib's style; below a Jupyter server LOCALTILESERVER_CLIENT_PREFIX, and where the server has a path
              PANEL_NOTEBOOK_RESOURCES and holoviews.extension.inline

Starting a server (servers.py, on which the local bucket relies) adds 127.0.0.1 to no_proxy and NO_PROXY.
"""
