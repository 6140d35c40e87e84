"""Words that worlds are made of: categories, things, qualities, names of scenarios and platforms.

A tenth of the category words (by hash) are held out: no training prompt and no tokenizer has seen them.
"""

from __future__ import annotations

import hashlib
from functools import cache

CATEGORIES = """
Action Adventure Animation Comedy Crime Documentary Drama Fantasy Horror Musical Mystery Romance Thriller
War Western Biography Satire Anime Noir Reality Talkshow News Weather Politics Economy Opinion Sports Local
World Science Health Travel Food Culture Music Dance Theatre Opera Ballet Jazz Blues Rock Metal Punk Folk
Country Soul Reggae Techno House Ambient Classical Choir Hiphop Disco Salsa Tango Cooking Baking Grilling
Vegan Desserts Pasta Soups Salads Breakfast Coffee Tea Wine Beer Cocktails Cheese Seafood Chocolate Spices
Football Basketball Baseball Tennis Golf Cricket Rugby Hockey Swimming Running Cycling Climbing Hiking
Sailing Rowing Surfing Skiing Boxing Wrestling Judo Karate Yoga Pilates Fitness Chess Poker Darts Archery
Fencing Gymnastics Volleyball Handball Badminton Skating Snowboarding Fishing Hunting Camping Gardening
Flowers Trees Birds Dogs Cats Horses Fish Reptiles Insects Farming Forests Oceans Rivers Mountains Deserts
History Archaeology Philosophy Religion Mythology Poetry Novels Essays Comics Manga Fables Memoirs Letters
Journalism Grammar Languages Linguistics Mathematics Physics Chemistry Biology Geology Astronomy Medicine
Psychology Sociology Economics Law Business Finance Investing Marketing Management Startups Careers Education
Parenting Family Weddings Relationships Fashion Beauty Makeup Skincare Haircare Perfume Nails Jewelry Watches
Shoes Boots Sandals Sneakers Dresses Shirts Trousers Jackets Coats Hats Gloves Scarves Socks Bags Luggage
Sunglasses Belts Swimwear Underwear Toys Puzzles Dolls Games Lego Crafts Knitting Sewing Quilting Pottery
Painting Drawing Sculpture Photography Calligraphy Origami Woodworking Metalwork Electronics Computers
Laptops Phones Tablets Cameras Headphones Speakers Television Printers Monitors Keyboards Robots Drones
Software Programming Databases Networks Security Gadgets Furniture Lighting Bedding Curtains Carpets Kitchen
Bathroom Garden Tools Paint Plumbing Heating Cleaning Laundry Storage Office Stationery Pens Notebooks
Calendars Cars Motorcycles Bicycles Trucks Trains Planes Ships Tyres Parts Fuel Insurance Banking Housing
Rentals Hotels Flights Cruises Museums Festivals Concerts Markets Restaurants Bars Cafes Parks Beaches Castles
Zoos Aquariums Magic Circus Puppets Stunts Pranks Reviews Tutorials Lectures Interviews Podcasts Livestreams
Trailers Highlights Recipes Tips Quizzes Memes Stories Vlogs Unboxing Challenges Simulation Strategy Racing
Shooter Platformer Arcade Roleplay Sandbox Trivia Cards Dominoes Baby Diapers Strollers Nursery Pets Aquatics
Nutrition Vitamins Sleep Meditation Massage Therapy Dentistry Pharmacy Hospitals Elections Parliament Courts
Police Military Diplomacy Immigration Environment Climate Energy Solar Nuclear Oil Mining Steel Textiles
Agriculture Transport Aviation Space Satellites Telescopes Maps Geography Volcanoes Dinosaurs Fossils Genetics
Vaccines Statistics Logic Algebra Geometry Calculus Ethics Design Architecture Interiors Typography Branding
Advertising Retail Logistics Tourism Charity Volunteering Genealogy Astrology Tarot Antiques Coins Stamps
Vintage Collectibles Autographs Posters Prints Frames Candles Soap Ceramics Glassware Cutlery Cookware
Blenders Ovens Fridges Vacuums Fans Heaters Batteries Cables Chargers Lenses Tripods Microphones
Guitars Pianos
Drums Violins Flutes Trumpets Harps Ukuleles Accordions Synthesizers Vinyl Soundtracks Lullabies Carols Hymns
Thrillers Westerns Classics Bestsellers Textbooks Dictionaries Atlases Cookbooks Workbooks Magazines
Newspapers Audiobooks Ebooks Anthologies Plays Scripts Ballads Sonnets Haiku Limericks Riddles Jokes Cartoons
""".split()  # noqa: SIM905

SECOND = """
Games Books Care Tools Music Shows Stories Films Lessons News Gear Supplies Sports Food Art Science Fashion
Culture Travel Crafts Toys Equipment Accessories Reviews Clips Series Kits Design Studies Reports
""".split()  # noqa: SIM905

THINGS = """
guide report column review kit set box pack clip story lesson show ring lamp bottle night river road house
garden letter king queen city island mountain star moon sun storm winter summer autumn spring dream shadow
secret promise journey return legend song heart hand eye voice silence mirror window door key bridge tower
castle forest ocean desert field stone glass paper silver gold iron copper velvet cotton leather wool silk
bowl cup plate knife spoon table chair shelf desk sofa pillow blanket towel brush comb mask cream oil serum
shirt jacket dress hat shoe sock glove belt bag case cover holder stand mount adapter cable charger battery
screen camera lens phone watch speaker drum guitar piano book novel poem diary map globe clock candle
wheel engine helmet rope tent boat kite ball racket glider puzzle doll robot train truck plane rocket
brother sister father mother child friend stranger doctor teacher captain soldier hunter thief painter
sailor farmer baker tailor writer dancer singer player runner rider master apprentice wolf fox bear eagle
horse tiger lion whale dragon ghost angel monster giant machine factory office school market station hotel
kitchen cellar attic library museum theater studio hospital prison harbor beach valley canyon cave trail
""".split()  # noqa: SIM905

QUALITIES = """
quick slow bright old fresh small great quiet plain bold dark light last first lost hidden golden broken
wild gentle sharp soft heavy tiny royal modern ancient simple deluxe mini classic digital portable wireless
natural organic daily weekly secret final perfect empty silent distant frozen burning endless little
magnetic folding travel premium basic extra super ultra double single round square long short warm cold
""".split()  # noqa: SIM905

JOINS = ("of the", "and the", "in the", "for", "with", "from the", "on the", "without", "under the", "to")

SCENARIOS = """
news shop video books music films home search feed live shorts store market travel food games sports beauty
toys clothing electronics classics eighties nineties recent weekday weekend morning evening mobile desktop
web app kids premium discovery following trending nearby europe asia america north south east west outlet
luxury garden kitchen office library radio podcasts events courses recipes jobs dating groups photos stories
""".split()  # noqa: SIM905

SCENARIO_SECONDS = (
    "page",
    "feed",
    "store",
    "channel",
    "tab",
    "section",
    "list",
    "room",
    "corner",
    "releases",
)

PLATFORMS = """
the platform|Harbour|Meadow|Northwind|Lantern|the shop|Orchard|Pixel Street|Cedar and Co|Bluebird|the app|
Riverside|Marble|Quill|the service|Compass|Juniper|Tidewater|Kestrel|the portal
""".replace("\n", "").split("|")

DESCRIPTIONS = (
    """
articles that are read|things that are bought|short videos that are watched|songs that people play|
films released before 1980|products for the kitchen|clothes for every season|items found by search|
recommendations on the first page|streams that are live|books and magazines|offers near the user|
posts of friends|games for phones and tablets|courses for beginners|tickets for concerts and plays|
food that is delivered at home|used things sold by people|tools for house and garden|trips and hotels|
""".replace("\n", "")
    .strip("|")
    .split("|")
)

HELD_OUT_SHARE = 0.12


@cache
def held_out(word: str) -> bool:
    """Whether a category word is kept from training; by hash, so that adding words moves no other."""
    digest = hashlib.sha256(word.lower().encode()).digest()
    return digest[0] < 256 * HELD_OUT_SHARE


SEEN = [word for word in dict.fromkeys(CATEGORIES) if not held_out(word)]
UNSEEN = [word for word in dict.fromkeys(CATEGORIES) if held_out(word)]
