"""The project's pages."""

from django.conf import settings
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("tocsin/", include("tocsin.contrib.django.urls")),
    path("order/", views.order),
    path("order/async/", views.order_async),
    path("page/", views.page),
]
if "django.contrib.admin" in settings.INSTALLED_APPS:
    from django.contrib import admin

    urlpatterns.append(path("admin/", admin.site.urls))
