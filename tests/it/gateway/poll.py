"""What an application does with a task API: submits a task, polls it until it ends, prints the link of its video.

    python3 poll.py BASE_URL [CALLBACK_URL]     with the key in API_KEY
"""

import os
import sys
import time

import requests

base_url = sys.argv[1]
wish = {"model": "seedance-2.0-text-to-video", "prompt": "a lighthouse in fog", "duration": 6, "quality": "720p"}
if len(sys.argv) > 2:
    wish["callback_url"] = sys.argv[2]

session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["API_KEY"]

submitted = session.post(base_url + "/v1/videos/generations", json=wish)
submitted.raise_for_status()
task = submitted.json()
while task["status"] in ("pending", "processing"):
    time.sleep(0.05)
    looked = session.get(base_url + "/v1/tasks/" + task["id"])
    looked.raise_for_status()
    task = looked.json()

if task["status"] != "completed":
    sys.exit("the task ended as " + task["status"])
print(task["id"], task["results"][0])
