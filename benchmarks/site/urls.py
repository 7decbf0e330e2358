"""The site's own addresses, and `bare/`: what Django itself needs for an answer."""

import json

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from benchmarks.work import echo
from snakepit.site.urls import urlpatterns as site


@csrf_exempt
async def bare(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"result": echo(json.loads(request.body)["value"])})


urlpatterns = [path("bare/", bare), *site]
