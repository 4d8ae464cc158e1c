-- Two business days by hand: two orders, what is around them, and the values that pipelines trip over.
INSERT INTO address VALUES
    (1, '6826 Herzog Via', NULL, 'Avon', 'New Patienceburgh', '08841', 'Turkey', '1803 637401', '2024-08-19 08:00:00', '2024-08-19 08:00:00'),
    (2, '1 O''Keefe Row', 'Suite 2', NULL, 'Leeds', '02813', 'Democratic People''s Republic of Korea', '9621 880720', '2024-08-19 08:00:00', '2024-08-19 08:00:00');
INSERT INTO department VALUES
    (1, 'Sales', 'Manchester', 'Richard Roma', '2024-08-19 08:00:00', '2024-08-19 08:00:00'),
    (2, 'Dispatch', 'Leds', 'Mark Hanna', '2024-08-19 08:00:00', '2024-08-19 08:00:00');
INSERT INTO currency VALUES (1, 'GBP', '2024-08-19 08:00:00', '2024-08-19 08:00:00'), (2, 'USD', '2024-08-19 08:00:00', '2024-08-19 08:00:00'), (3, 'EUR', '2024-08-19 08:00:00', '2024-08-19 08:00:00');
INSERT INTO payment_type VALUES (1, 'SALES_RECEIPT', '2024-08-19 08:00:00', '2024-08-19 08:00:00'), (3, 'PURCHASE_PAYMENT', '2024-08-19 08:00:00', '2024-08-19 08:00:00');
INSERT INTO counterparty VALUES (1, 'Padberg, Lueilwitz and Johnson', 2, 'Micheal Toy', 'Jean Hane III', '2024-08-19 08:00:00', '2024-08-19 08:00:00');
INSERT INTO staff VALUES (1, 'Jeremie', 'O''Keefe', 2, 'jeremie@terrifictotes.com', '2024-08-19 08:00:00', '2024-08-19 08:00:00');
INSERT INTO design VALUES (1, '2024-08-19 08:00:00', 'Wooden', '/usr/local', 'wooden-20201128-jdvi.json', '2024-08-19 08:00:00');
INSERT INTO sales_order VALUES (1, '2024-08-20 09:10:11.123', '2024-08-20 09:10:11.123', 1, 1, 1, 1001, 2.43, 3, '2024-08-24', '2024-08-23', 1);
INSERT INTO purchase_order VALUES (1, '2024-08-21 18:59:59.999', '2024-08-21 18:59:59.999', 1, 1, 'ZDOI5EA', 371, 361.39, 2, '2024-08-23', '2024-08-26', 2);
INSERT INTO transaction VALUES
    (1, 'SALE', 1, NULL, '2024-08-20 09:10:11.123', '2024-08-20 09:10:11.123'),
    (2, 'PURCHASE', NULL, 1, '2024-08-21 18:59:59.999', '2024-08-21 18:59:59.999');
INSERT INTO payment VALUES
    (2, '2024-08-20 09:10:11.123', '2024-08-20 09:10:11.123', 1, 1, 2432.43, 3, 1, false, '2024-08-23', 12345678, 87654321),
    (1, '2024-08-21 18:59:59.999', '2024-08-21 18:59:59.999', 2, 1, 134075.69, 2, 3, false, '2024-08-26', 12345678, 87654321);
