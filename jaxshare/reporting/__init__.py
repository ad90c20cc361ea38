"""Parts of `python -m jaxshare.report`: runs read and grouped, statistics of their scores, pictures, tables, a page."""
