-- What a person calls a device, as the app knows it: "Alice's iPhone".
alter table tocsin.device
    add column label text check (length(label) between 1 and 100);
