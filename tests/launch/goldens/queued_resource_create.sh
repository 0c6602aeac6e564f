#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
gcloud compute tpus queued-resources create scope-2b-l12 --node-id=scope-2b-l12 --project=my-project --zone=us-central1-a --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --labels=jumprelu-run=scope-2b,jumprelu-layer=12 --metadata-from-file=startup-script=scope-2b-l12.startup.sh --spot --service-account=trainer@my-project.iam.gserviceaccount.com
