"""The site's own addresses, and two views beside it: `bare/`, and `bare/key/` with the authentication of the API."""

import json

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from benchmarks.work import echo
from snakepit.pools.api.auth import KeyAuth
from snakepit.site.urls import urlpatterns as site


@csrf_exempt
async def bare(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"result": echo(json.loads(request.body)["value"])})


@csrf_exempt
async def bare_with_key(request: HttpRequest) -> JsonResponse:
    caller = await KeyAuth()(request)
    assert caller is not None
    caller.allow("call", "work")
    return JsonResponse({"result": echo(json.loads(request.body)["value"])})


urlpatterns = [path("bare/", bare), path("bare/key/", bare_with_key), *site]
