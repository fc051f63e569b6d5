"""What a training needs before it begins: memory per device, time, communication, money."""
