"""A sync and an async view that save an order and notify the person in one transaction."""

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from accounts.models import Order
from tocsin import notify


@transaction.atomic
def place_order(user_id: object, number: int) -> int:
    Order.objects.create(number=number)
    return notify(
        connection,
        recipient=user_id,
        event_type="shop.order_sent",
        title=f"Order {number} is on its way",
    )


def order(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"event": place_order(request.POST["user"], int(request.POST["number"]))})


async def order_async(request: HttpRequest) -> JsonResponse:
    event = await sync_to_async(place_order)(request.POST["user"], int(request.POST["number"]))
    return JsonResponse({"event": event})


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "page.html")
