"""Helpers shared by the GLAD datacube workshop's notebooks.

The notebooks hold the code that the lessons teach. This package holds the code that would distract from it.

Environment variables that you can set::

    GLAD_TILES    folder or http(s) URL of the tiles, instead of data/    (tiles.py)
    GLAD_BUCKET   s3://name/prefix, instead of the bucket on this machine (stores.py)

Importing a module changes these for the whole process. Environment variables that are already set keep their values::

    tiles     GDAL_CACHEMAX, GDAL_HTTP_CONNECTTIMEOUT, GDAL_HTTP_LOW_SPEED_LIMIT,
              GDAL_HTTP_LOW_SPEED_TIME, GDAL_HTTP_MAX_RETRY, GDAL_HTTP_RETRY_DELAY
    stores    Icechunk logs errors only
    virtual   Zarr's codec imagecodecs_lzw, in its registry and in zarr.config; a filter for virtual-tiff's warning
    maps      matplotlib's style; a filter for a warning of web maps; GDAL_DISABLE_READDIR_ON_OPEN, GDAL_NUM_THREADS;
              under a Jupyter server, LOCALTILESERVER_CLIENT_PREFIX; if the server has a path, also
              PANEL_NOTEBOOK_RESOURCES and holoviews.extension.inline

Starting a server (servers.py; the local bucket needs one) adds 127.0.0.1 to no_proxy and NO_PROXY.
"""
