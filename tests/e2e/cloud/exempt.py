"""
The operations whose body Oracle's own client does not sign.

In: method, host and raw path.  Out: whether three signed headers are enough.
Source: the calls with ``enforce_content_headers=False`` in the oci SDK of oci-cli 3.95.1: 19 of them; one is a GET.  Pure.
"""

import re
from typing import Final

_TABLE: Final = (
    ("PUT", "objectstorage.", r"/n/{}/b/{}/o/.+"),
    ("PUT", "objectstorage.", r"/n/{}/b/{}/u/.+"),
    ("POST", "streaming.", r"/20180418/streams/{}/messages"),
    ("POST", "loganalytics.", r"/20200601/namespaces/{}/actions/uploadDiscoveryData"),
    ("POST", "loganalytics.", r"/20200601/namespaces/{}/actions/uploadLogEventsFile"),
    ("POST", "loganalytics.", r"/20200601/namespaces/{}/actions/uploadLogFile"),
    ("POST", "loganalytics.", r"/20200601/namespaces/{}/actions/otlp/v1/logs"),
    ("PUT", "apm-config.", r"/20210201/dataFiles/{}"),
    ("PUT", "generic.artifacts.", r"/20160918/generic/repositories/{}/artifactPaths/.+/versions/{}/content"),
    ("POST", "datascience.", r"/20190101/jobs/{}/artifact"),
    ("POST", "datascience.", r"/20190101/models/{}/artifact"),
    ("POST", "datascience.", r"/20190101/models/{}/customMetadata/{}/artifact"),
    ("POST", "datascience.", r"/20190101/models/{}/definedMetadata/{}/artifact"),
    ("POST", "datascience.", r"/20190101/modelGroups/{}/artifact"),
    ("POST", "datascience.", r"/20190101/pipelines/{}/steps/{}/artifact"),
    ("GET", "datascience.", r"/20190101/pipelines/{}/steps/{}/artifact/content"),
    ("PUT", "datascience.", r"/20190101/models/{}/customMetadata/{}/artifact"),
    ("PUT", "datascience.", r"/20190101/models/{}/definedMetadata/{}/artifact"),
    ("PUT", "operationsinsights.", r"/20200630/awrHubObjects/awrHubSources/{}/o/.+"),
)
OPERATIONS: Final = tuple((method, host, re.compile(path.replace("{}", "[^/]+"))) for method, host, path in _TABLE)
HOSTS: Final = tuple(
    f"{name}.test-1.oci.cloud.test"
    for name in ("streaming", "loganalytics", "apm-config", "generic.artifacts", "datascience", "operationsinsights")
)
"""What the SDK makes of the region ``test-1`` for these services; object storage has its own name."""


def is_exempt(method: str, host: str, path: str) -> bool:
    """Tell whether the body of this operation may go unsigned."""
    return any(method == wanted and host.lower().startswith(prefix) and pattern.fullmatch(path) for wanted, prefix, pattern in OPERATIONS)
