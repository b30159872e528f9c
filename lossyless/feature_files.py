"""Old name of `lossyless.files`, kept for one release."""

from lossyless.files import *  # noqa: F403
