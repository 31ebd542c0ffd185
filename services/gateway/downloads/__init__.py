"""Brings what a client's URLs stand for, without letting a client reach what only the platform may reach.

`Downloader.fetch` asks a server on the internet, in the way of `services.internet`; `decode_data_url` reads a `data:`
URL.
"""

from services.gateway.downloads.content import Fetched
from services.gateway.downloads.data_urls import decode_data_url
from services.gateway.downloads.downloader import Downloader
from services.gateway.downloads.settings import DownloadSettings

__all__ = ["DownloadSettings", "Downloader", "Fetched", "decode_data_url"]
