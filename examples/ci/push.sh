#!/usr/bin/env bash
# Push an image to ECR under a tag, and print its URI by digest on stdout. What is there under the tag already stays.
#
#   push.sh IMAGE REPOSITORY TAG    IMAGE as the local engine calls it, REPOSITORY as ECR does (output ImageRepository)
#
# Needs docker and the AWS CLI, and from the environment AWS_REGION and credentials that may push; those of infra/ci.yaml
# may do nothing else.
set -euo pipefail
image=$1 repository=$2 tag=$3
registry=${repository%%/*}
name=${repository#*/}
export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-$AWS_REGION} # version 1 of the AWS CLI knows only this one

digest() {
    aws ecr batch-get-image --repository-name "$name" --image-ids imageTag="$tag" \
        --query 'images[0].imageId.imageDigest' --output text
}

found=$(digest)
if [ "$found" = None ]; then
    aws ecr get-login-password | docker login --username AWS --password-stdin "$registry" >&2
    docker tag "$image" "$repository:$tag"
    docker push "$repository:$tag" >&2
    found=$(digest)
fi
echo "$repository@$found"
