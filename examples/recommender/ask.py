"""Asks the recommender's service a few questions, and shows the answers.

    python examples/recommender/ask.py                        # the deployment's service `recommender`
    python examples/recommender/ask.py https://example.org    # the one at this address

It needs nothing but Python, and `cirro` where no address is given. Exit codes: 0 it answers as it should; 1 it does
not.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT_S = 30.0


def find(name):
    """Where a service of the deployment answers.

    Raises:
        SystemExit: There is none, or it cannot be asked for; with what `cirro` said.
    """
    done = subprocess.run(["cirro", "serve", "status", name, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"`cirro serve status {name}` ended with {done.returncode}")
    [service] = json.loads(done.stdout)
    return service["url"]


def ask(url, path, body=None):
    """An answer of the service.

    Args:
        url: Where it answers.
        path: What is asked for.
        body: What is sent with a POST, as JSON; `None`: a GET.

    Returns:
        Status, document, version of the model, and seconds until the answer was there.
    """
    headers = {} if body is None else {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    begun = time.perf_counter()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        answer = error  # it has a body, too
    with answer:
        document = json.loads(answer.read())
    return answer.status, document, answer.headers.get("x-model-version", ""), time.perf_counter() - begun


def show(request, status, seconds, lines):
    """A question and its answer."""
    print(f"\n{request}   {status}, {1000 * seconds:.1f} ms")
    for line in lines:
        print(f"  {line}")


def main():
    parser = argparse.ArgumentParser(description="Ask the recommender's service a few questions.")
    parser.add_argument("url", nargs="?", help="where it answers; unset: what `cirro serve status` says")
    parser.add_argument("--name", default="recommender", help="name of the service, where no address is given")
    parser.add_argument("--user", default="1", help="user of the questions")
    options = parser.parse_args()
    url = (options.url or find(options.name)).rstrip("/")
    user = urllib.parse.quote(options.user, safe="")

    status, ready, version, seconds = ask(url, "/ready")
    print(f"{url} serves {ready.get('model')} {version}")
    failed = [status != 200]

    path = f"/users/{user}/recommendations?n=5"
    status, found, _, seconds = ask(url, path)
    failed.append(status != 200)
    if status != 200:
        show(f"GET {path}", status, seconds, [found.get("detail")])
        return 1
    items = found["items"]
    show(f"GET {path}", status, seconds, [f"{each['score']:.2f}  {each['title']}" for each in items])

    path = f"/items/{urllib.parse.quote(str(items[0]['item']), safe='')}/similar?n=3"
    status, found, _, seconds = ask(url, path)
    failed.append(status != 200)
    lines = [f"{each['similarity']:.2f}  {each['title']}" for each in found.get("similar", [])]
    show(f"GET {path}", status, seconds, lines)

    body = {"users": [options.user, "nobody"], "n": 2, "popular": True}
    status, found, _, seconds = ask(url, "/recommendations", body)
    failed.append(status != 200)
    lines = [
        f"user {each['user']}, {each['source']}: {', '.join(item['title'] for item in each['items'])}"
        for each in found.get("answers", [])
    ]
    show(f"POST /recommendations {json.dumps(body)}", status, seconds, lines)

    path = "/users/nobody/recommendations"
    status, found, _, seconds = ask(url, path)
    failed.append(status != 404)
    show(f"GET {path}", status, seconds, [found.get("detail")])
    return 1 if any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
