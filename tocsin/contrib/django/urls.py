"""`path("tocsin/", include("tocsin.contrib.django.urls"))`: the bell's next token."""

from django.urls import path

from tocsin.contrib.django.views import token

app_name = "tocsin"
urlpatterns = [path("token/", token, name="token")]
