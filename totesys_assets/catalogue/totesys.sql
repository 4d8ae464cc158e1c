-- ToteSys, the source database, as it stands in production. The comment above a table says what one of its rows is, the
-- comment after a column what it means; users see both. "date as text:" declares that a text holds a date, YYYY-MM-DD.
-- "by day:" declares that the table is partitioned by the day of that column, which never changes.

-- What a payment is for.
CREATE TYPE "PaymentTypeName" AS ENUM ('SALES_RECEIPT', 'SALES_REFUND', 'PURCHASE_PAYMENT', 'PURCHASE_REFUND');

-- Which kind of order a transaction belongs to.
CREATE TYPE "TransactionType" AS ENUM ('SALE', 'PURCHASE');

-- One row per postal address: a counterparty's legal seat or a place of delivery.
CREATE TABLE address (
    address_id serial PRIMARY KEY, -- the address's number
    address_line_1 text NOT NULL, -- street and house number
    address_line_2 text, -- building, floor or unit
    district text, -- district or county
    city text NOT NULL, -- town or city
    postal_code text NOT NULL, -- postal code, leading zeros count
    country text NOT NULL, -- name of the country
    phone text NOT NULL, -- telephone number
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per department of Terrific Totes.
CREATE TABLE department (
    department_id serial PRIMARY KEY, -- the department's number
    department_name text NOT NULL, -- name of the department
    location text, -- town where it sits
    manager text, -- who leads it
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per currency that orders are priced in.
CREATE TABLE currency (
    currency_id serial PRIMARY KEY, -- the currency's number
    currency_code varchar(3) NOT NULL, -- three-letter ISO 4217 code
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per reason for which money moves.
CREATE TABLE payment_type (
    payment_type_id serial PRIMARY KEY, -- the payment type's number
    payment_type_name "PaymentTypeName" NOT NULL, -- receipt, payment or one of their refunds
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per company that Terrific Totes sells to or buys from.
CREATE TABLE counterparty (
    counterparty_id serial PRIMARY KEY, -- the counterparty's number
    counterparty_legal_name text NOT NULL, -- registered name of the company
    legal_address_id int NOT NULL REFERENCES address ON UPDATE CASCADE ON DELETE RESTRICT, -- its registered address
    commercial_contact text, -- who to talk to about business
    delivery_contact text, -- who to talk to about deliveries
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per member of staff of Terrific Totes.
CREATE TABLE staff (
    staff_id serial PRIMARY KEY, -- the staff member's number
    first_name text NOT NULL, -- given name
    last_name text NOT NULL, -- family name
    department_id int NOT NULL REFERENCES department ON UPDATE CASCADE ON DELETE RESTRICT, -- department they work in
    email_address text NOT NULL, -- work e-mail address
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per design that a tote bag can carry.
CREATE TABLE design (
    design_id serial PRIMARY KEY, -- the design's number
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- when the row was made, UTC
    design_name text NOT NULL, -- name of the design, shared by many
    file_location text NOT NULL, -- directory that holds the design's file
    file_name text NOT NULL, -- name of the design's file
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per order of tote bags, sold to a counterparty.
CREATE TABLE sales_order (
    sales_order_id serial PRIMARY KEY, -- the sales order's number
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- by day: when the order was placed, UTC
    last_updated timestamp(3) NOT NULL, -- when the application last wrote the row, UTC
    design_id int NOT NULL REFERENCES design ON UPDATE CASCADE ON DELETE RESTRICT, -- the design sold
    staff_id int NOT NULL REFERENCES staff ON UPDATE CASCADE ON DELETE RESTRICT, -- who made the sale
    counterparty_id int NOT NULL REFERENCES counterparty ON UPDATE CASCADE ON DELETE RESTRICT, -- who buys
    units_sold int NOT NULL, -- number of bags sold
    unit_price numeric(10,2) NOT NULL, -- price of one bag, in the order's currency
    currency_id int NOT NULL REFERENCES currency ON UPDATE CASCADE ON DELETE RESTRICT, -- the order's currency
    agreed_delivery_date text NOT NULL, -- date as text: when the bags are to arrive
    agreed_payment_date text NOT NULL, -- date as text: when the buyer is to pay
    agreed_delivery_location_id int NOT NULL REFERENCES address ON UPDATE CASCADE ON DELETE RESTRICT -- delivery place
);

-- One row per order of items, bought from a counterparty.
CREATE TABLE purchase_order (
    purchase_order_id serial PRIMARY KEY, -- the purchase order's number
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- by day: when the order was placed, UTC
    last_updated timestamp(3) NOT NULL, -- when the application last wrote the row, UTC
    staff_id int NOT NULL REFERENCES staff ON UPDATE CASCADE ON DELETE RESTRICT, -- who placed the order
    counterparty_id int NOT NULL REFERENCES counterparty ON UPDATE CASCADE ON DELETE RESTRICT, -- who sells
    item_code text NOT NULL, -- the seller's code of the item
    item_quantity int NOT NULL, -- number of items bought
    item_unit_price numeric(10,2) NOT NULL, -- price of one item, in the order's currency
    currency_id int NOT NULL REFERENCES currency ON UPDATE CASCADE ON DELETE RESTRICT, -- the order's currency
    agreed_delivery_date text NOT NULL, -- date as text: when the items are to arrive
    agreed_payment_date text NOT NULL, -- date as text: when the seller is to be paid
    agreed_delivery_location_id int NOT NULL REFERENCES address ON UPDATE CASCADE ON DELETE RESTRICT -- delivery place
);

-- One row per business deal: it ties one order to its payment.
CREATE TABLE transaction (
    transaction_id serial PRIMARY KEY, -- the transaction's number
    transaction_type "TransactionType" NOT NULL, -- sale or purchase
    sales_order_id int UNIQUE REFERENCES sales_order ON UPDATE CASCADE ON DELETE SET NULL, -- order, if a sale
    purchase_order_id int UNIQUE REFERENCES purchase_order ON UPDATE CASCADE ON DELETE SET NULL, -- order, if a purchase
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- by day: when the row was made, UTC
    last_updated timestamp(3) NOT NULL -- when the application last wrote the row, UTC
);

-- One row per payment of a transaction, due or made.
CREATE TABLE payment (
    payment_id serial PRIMARY KEY, -- the payment's number, not always its transaction's
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, -- by day: when the row was made, UTC
    last_updated timestamp(3) NOT NULL, -- when the application last wrote the row, UTC
    transaction_id int NOT NULL UNIQUE REFERENCES transaction ON UPDATE CASCADE ON DELETE RESTRICT, -- what it pays for
    counterparty_id int NOT NULL REFERENCES counterparty ON UPDATE CASCADE ON DELETE RESTRICT, -- who pays or is paid
    payment_amount numeric(10,2) NOT NULL, -- quantity times price, in the payment's currency
    currency_id int NOT NULL REFERENCES currency ON UPDATE CASCADE ON DELETE RESTRICT, -- the payment's currency
    payment_type_id int NOT NULL REFERENCES payment_type ON UPDATE CASCADE ON DELETE RESTRICT, -- why money moves
    paid boolean NOT NULL, -- whether the money has moved
    payment_date text NOT NULL, -- date as text: when the payment is due
    company_ac_number int NOT NULL, -- bank account of Terrific Totes, eight digits
    counterparty_ac_number int NOT NULL -- bank account of the counterparty, eight digits
);
