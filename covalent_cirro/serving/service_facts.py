"""Asks AWS what a service's parameters are checked against: subnets, image, certificate, model. It changes nothing."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment.doctor import subnet_facts
from covalent_cirro.deployment.images import repository as images
from covalent_cirro.errors import AccessDenied, ImageError, NotFound
from covalent_cirro.jobs import console_links, image_rules
from covalent_cirro.jobs.image_rules import EcrImage
from covalent_cirro.serving.service_values import ServedImage, ServiceFacts

_CERTIFICATE = re.compile(r"arn:[a-z-]+:acm:(?P<region>[a-z0-9-]+):\d{12}:certificate/.+")


class AcmCertificate(NamedTuple):
    """What ACM says of a certificate.

    Attributes:
        domain: Name that it is for; empty where ACM may not be asked.
        problem: Why a load balancer cannot use it; empty where it can.
        expires_at: When it expires, in epoch seconds; `None` where that is not known.
    """

    domain: str = ""
    problem: str = ""
    expires_at: float | None = None


def is_emulated(clients: Clients) -> bool:
    """Whether AWS is emulated."""
    return not console_links.is_aws(clients.endpoint_url)


def look(clients: Clients, *, account: str, subnets: str, image: str | None, certificate: str) -> ServiceFacts:
    """Everything that a service's parameters are checked against.

    Args:
        clients: Clients of the account.
        account: Id of the account.
        subnets: Ids of the deployment's subnets, separated by commas.
        image: URI of the image; `None` for the one that is served already.
        certificate: ARN of the certificate; empty for none.

    Raises:
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    found = subnet_facts.subnets(clients, [each for each in subnets.split(",") if each])
    return ServiceFacts(
        region=clients.region,
        emulated=is_emulated(clients),
        subnets=tuple(found.values()),
        image=None if image is None else image_of(clients, account, image),
        certificate_problem=certificate_of(clients, certificate).problem if certificate else "",
    )


# --- image ------------------------------------------------------------------------------------------------------------


def image_of(clients: Clients, account: str, uri: str) -> ServedImage:
    """What ECR says of an image; with the digest of its tag, so that all tasks run the same bytes.

    Raises:
        AccessDenied, AwsError: ECR refused or could not be reached.
    """
    at = image_rules.ecr_image(uri, urlsplit(clients.endpoint_url).netloc)
    if at is None:
        if is_emulated(clients):
            return ServedImage(uri, "")  # the emulator has images of its own
        return ServedImage(
            uri,
            "",
            problem=f"the image {uri} is not in ECR, where tasks pull from: push it to a repository of this account",
        )
    elsewhere = _elsewhere(at, account, clients.region, uri)
    if elsewhere:
        return ServedImage(uri, "", problem=elsewhere)
    host = uri.partition("/")[0]
    repository = images.Repository(clients("ecr"), clients.access, f"{host}/{at.repository}")
    try:
        digest = at.digest
        if digest is None:
            pushed = images.find(repository, at.tag)
            if pushed is None:
                return ServedImage(uri, "", problem=_no_tag(repository, at))
            digest = pushed.digest
        architectures = images.architectures(repository, digest)
    except (NotFound, ImageError) as error:
        return ServedImage(uri, "", problem=f"the image {uri} is not in ECR: {str(error).rstrip('.')}")
    return ServedImage(f"{repository.uri}@{digest}", _repository_arn(at, account, clients.region), architectures)


def _elsewhere(at: EcrImage, account: str, region: str, uri: str) -> str:
    if at.registry not in (None, account):
        return (
            f"the image {uri} is in the registry of account {at.registry}, not of {account}: push it to a repository "
            "of this account"
        )
    if at.region not in (None, region):
        return (
            f"the image {uri} is in {at.region}, the deployment in {region}: push it to a repository of {region}, from "
            "which a task starts faster, at no cost"
        )
    return ""


def _no_tag(repository: images.Repository, at: EcrImage) -> str:
    tags = sorted({tag for each in images.listing(repository) for tag in each.tags})
    there = f"it has the tags {', '.join(tags[:10])}" if tags else "it has no tagged image"
    return (
        f"the repository {repository.uri} has no image with the tag {at.tag!r}; {there}. Push one: `docker build -t "
        f"{repository.uri}:{at.tag} ...`, `docker push {repository.uri}:{at.tag}`"
    )


def _repository_arn(at: EcrImage, account: str, region: str) -> str:
    return f"arn:{console_links.partition_of(region)}:ecr:{region}:{account}:repository/{at.repository}"


# --- certificate ------------------------------------------------------------------------------------------------------


def certificate_of(clients: Clients, arn: str) -> AcmCertificate:
    """What ACM says of a certificate. Where ACM may not be asked, nothing is wrong with it as far as is known."""
    named = _CERTIFICATE.fullmatch(arn)
    if named is None:
        return AcmCertificate(problem=f"{arn} is not the ARN of a certificate in ACM")
    if named["region"] != clients.region:
        return AcmCertificate(
            problem=f"the certificate {arn} is in {named['region']}, the load balancer in {clients.region}: request or "
            f"import it in {clients.region}, as a load balancer takes no other"
        )
    try:
        with clients.asking("acm:DescribeCertificate", of=arn) as acm:
            said = acm.describe_certificate(CertificateArn=arn)["Certificate"]
    except NotFound:
        return AcmCertificate(
            problem=f"the certificate {arn} does not exist: `aws acm list-certificates` lists those that do"
        )
    except AccessDenied:
        return AcmCertificate()
    domain, status = str(said.get("DomainName") or ""), str(said.get("Status") or "")
    expires = said.get("NotAfter")
    problem = ""
    if status != "ISSUED":
        problem = (
            f"the certificate {arn} for {domain} is {status}, and a load balancer takes one that is ISSUED: make the "
            "DNS record that validates it (`aws acm describe-certificate`), and wait"
        )
    return AcmCertificate(domain, problem, None if expires is None else expires.timestamp())
